"""The room `monitor`."""
