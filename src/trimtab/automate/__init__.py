"""The room `automate`."""
