"""Beams, teacher-forced scores and the tokenizer bridge; pure torch."""

from raw2s.decoding.bridge import spread_word_scores, word_of_piece, word_scores

__all__ = ["spread_word_scores", "word_of_piece", "word_scores"]
