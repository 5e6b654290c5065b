//! Answers that must follow a grammar: a JSON schema, a regular expression, a list of choices, a grammar in Lark's
//! notation. `source` is what a request asks for, `compose` writes it as one grammar, `vocabulary` knows the model's
//! tokens by their bytes, `compiler` makes a `Grammar` of both, and that follows one answer token by token.
//!
//! llguidance does the parsing. Nothing of it shows outside of this folder.

mod compiler;
mod compose;
pub mod source;
mod state;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use compiler::Compiler;
pub use compose::Stage;
pub use state::Grammar;
