"""Pieces that sources share: tables, foreign files, frames, lamps."""
