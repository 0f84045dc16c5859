"""What trains: the codec, the digits' denoisers, first stages, latent diffusion, distillation."""
