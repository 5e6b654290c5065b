//! Rewrites the one tag that Hugging Face adds to Jinja: `{% generation %}` marks what the assistant said, for training.
//! In a prompt it means nothing, so its body stays and the tags become a condition that always holds.

/// `source` with its generation tags replaced. Marks that control blanks, and the lines of everything, are kept.
pub fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        let name = tag.trim_start_matches("{%").trim_end_matches("%}").trim_matches(['-', '+']).trim();
        match name {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => {
                // Only the opening is passed over: what looks like an end may stand inside a string.
                out.push_str("{%");
                rest = &rest[start + 2..];
                continue;
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_generation_tags_change() {
        let cases = [
            ("", ""),
            ("a {% if b %}c{% endif %}", "a {% if b %}c{% endif %}"),
            ("{% generation %}x{% endgeneration %}", "{% if true %}x{% endif %}"),
            ("{%- generation -%}x{%-endgeneration+%}", "{%- if true -%}x{%-endif+%}"),
            ("{% set generation = 1 %}", "{% set generation = 1 %}"),
            ("{{ '{% generation' }}", "{{ '{% generation' }}"),
            ("{% if '%}' %}{% generation %}", "{% if '%}' %}{% if true %}"),
            ("{%", "{%"),
        ];
        for (source, expected) in cases {
            assert_eq!(without_generation_tags(source), expected);
        }
    }
}
