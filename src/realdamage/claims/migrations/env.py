"""Alembic runs this for each migration; `claims.migrate` hands it the connection."""

from alembic import context

from realdamage.claims.migrate import TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=TABLE,
    render_as_batch=True,  # SQLite cannot change a column in place
)
with context.begin_transaction():
    context.run_migrations()
