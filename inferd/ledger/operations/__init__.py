"""Operations of the operator, by noun, as the CLI and the admin API call them."""
