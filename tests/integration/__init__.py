"""Tests with real servers, clients and stores."""
