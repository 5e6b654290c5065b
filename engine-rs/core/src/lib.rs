//! Inference core: bytes of a GGUF file and requests in, tokens out. Knows nothing of Python.
