"""Generative models: noising, denoising and sampling."""
