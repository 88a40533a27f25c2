"""How work is spread over threads of this process, or over Ray's processes."""
