"""Encoders and heads, the degrees of what they are made of, and the check of f(cx) = f(x)."""
