"""The codec's networks: transforms, hyper-transforms, context, gain."""
