"""Load tests of servers that speak the OpenAI API: inferd, and llama-server of the same llama.cpp."""
