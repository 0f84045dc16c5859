"""The codec: a scale hyperprior and a latent diffusion model that share one bitstream."""
