"""Tests of one package of the service at a time, without processes."""
