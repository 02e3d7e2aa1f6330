"""The room `backends`."""
