//! Sans-I/O HTTP/1.1 and SSE codec.
