"""What operators ask of `logs`: the statements, the options, and answers for people and for machines."""
