"""Reinforcement learning on what a model learned: on its latents and inside its dream.

Algorithms are Stable-Baselines3's, unchanged; agents are judged in the real environment alone.
"""
