"""Data sets made of data sets, byte by byte."""
