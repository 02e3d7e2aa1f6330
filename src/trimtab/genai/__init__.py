"""The room `genai`."""
