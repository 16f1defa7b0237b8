"""The questions that operators ask of `logs`: their options, their statements, and how answers are printed."""
