"""Frames of searches and relaxations: compact files and what ASE reads."""

from .frames import frames_to_npz, read_frames, write_frames

__all__ = ['frames_to_npz', 'read_frames', 'write_frames']
