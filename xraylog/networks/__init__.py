"""Read files that say which country and provider a network has; `xraylog/database/networks.py` stores them."""
