//! The names that Python's `threading` module gives its threads.
