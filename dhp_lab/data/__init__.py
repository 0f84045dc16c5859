"""Pictures, digits and captioned scenes: where training and tests take them from."""
