"""From recorded play to a world: train the Autoencoder, then the Denoiser, evaluate, export."""
