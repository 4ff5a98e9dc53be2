"""Real servers, clients and stores."""
