"""Sentences made of measured numbers: from results tables to the words around a figure."""
