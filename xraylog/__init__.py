"""Xray Log Ingestion & Analytics: xray-core's access log becomes rows in PostgreSQL."""

__version__ = "0.1.0"
