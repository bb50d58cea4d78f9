"""The search: data, costs, training, proposers, the store, and what people see of them."""
