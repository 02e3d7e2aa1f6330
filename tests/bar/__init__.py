"""The bar: what breaks on purpose, counted, and what must stand."""
