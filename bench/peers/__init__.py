"""The same mathematics in other libraries, to be timed and to be tested against."""
