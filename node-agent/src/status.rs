//! Between the engine and the API server: reads ENIPool and class, writes the status.
