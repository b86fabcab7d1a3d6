"""`routines doctor`: checks of all that a routine rests on, each with what was seen and what to do."""
