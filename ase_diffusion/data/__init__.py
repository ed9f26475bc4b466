"""Frames of searches and relaxations: compact npz files, databases, and the formats of ASE."""

from .frames import frames_to_npz, read_frames, write_frames

__all__ = ['frames_to_npz', 'read_frames', 'write_frames']
