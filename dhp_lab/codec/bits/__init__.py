"""From numbers to bytes: lambda's code, scales, the entropy coder and the .dhp container."""
