"""The networks of a world, in PyTorch: Autoencoder (picture <-> latents), Denoiser (next latents)
and Sampler.
"""
