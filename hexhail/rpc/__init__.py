"""How our services speak gRPC: assembly, identity, deadlines, errors, logging. The only shared code that knows status codes."""
