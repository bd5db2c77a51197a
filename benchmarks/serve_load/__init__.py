"""What `bench_serve.py` is made of: players of flesh and bones in Python, servers in processes of
their own, and what can go wrong between them. Everything happens on 127.0.0.1.
"""
