"""The latent denoiser: what the decoder holds, the network, the sampler."""
