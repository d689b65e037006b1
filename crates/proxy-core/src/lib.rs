//! Nouns of the data plane: listener, filters, stream info, response flags.
