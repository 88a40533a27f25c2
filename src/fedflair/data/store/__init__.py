"""The packed store: the only room that knows its schema."""
