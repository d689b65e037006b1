//! What is wrong with user input, where, why and how to mend it.
