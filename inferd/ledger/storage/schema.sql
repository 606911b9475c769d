-- The ledger's schema, version 16 (PRAGMA user_version). A change of it is made here and as a migration in schema.py.
--
-- All tables are STRICT. Units are in the names: _nanousd (10^-9 USD), _picousd (10^-12 USD a token, or a millisecond
-- of compute time), _ppm (millionths), _ms (an instant is milliseconds since 1970-01-01 UTC, a duration milliseconds).
-- `checksum` covers the columns that rows.py lists: the first 32 hex digits of a SHA-256. Rows of transactions,
-- entries, usage, idempotency, epochs and the audit log are append-only by trigger; holds, grants, keys, files and
-- batches change only their state, and only forward. Names of an actor: `cli:NAME`, `key:KEY_ID`, or a rule's name.

-- Teams and the keys that requests carry ------------------------------------------------------------------------------

CREATE TABLE teams (
    team TEXT NOT NULL PRIMARY KEY,         -- its name
    plan TEXT NOT NULL,                     -- a plan of the catalog in force
    tier_override INTEGER CHECK (tier_override BETWEEN 0 AND 5),  -- set by the operator; NULL: the earned tier counts
    created_at_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,               -- actor
    tier_override_until_ms INTEGER          -- first instant at which the override no longer holds; NULL: no end
) STRICT, WITHOUT ROWID;

CREATE TABLE projects (
    team TEXT NOT NULL REFERENCES teams,
    project TEXT NOT NULL,                  -- its name, unique within the team
    created_at_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,               -- actor
    PRIMARY KEY (team, project)
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    team TEXT NOT NULL REFERENCES teams,
    user TEXT NOT NULL,                     -- its name, unique within the team
    created_at_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,               -- actor
    PRIMARY KEY (team, user)
) STRICT, WITHOUT ROWID;
-- An e-mail address in a header is found as the user that has the address in other case.
CREATE INDEX users_nocase ON users (team, user COLLATE NOCASE);

CREATE TABLE keys (
    key_id TEXT NOT NULL PRIMARY KEY,       -- the public part of the key
    team TEXT NOT NULL REFERENCES teams,
    project TEXT,                           -- the only project that the key may use; NULL: any of the team
    user TEXT,                              -- the user that the key belongs to; NULL: none
    label TEXT,                             -- for people
    secret_sha256 TEXT NOT NULL,            -- hex; the secret itself is stored nowhere
    last4 TEXT NOT NULL,                    -- the last four characters of the secret, for people
    expires_at_ms INTEGER,                  -- NULL: never
    created_at_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,               -- actor
    revoked_at_ms INTEGER,                  -- NULL: not revoked
    revoked_by TEXT,                        -- actor
    checksum TEXT NOT NULL,
    scopes TEXT NOT NULL DEFAULT 'inference usage',  -- what the key may do, separated by spaces
    models TEXT,                            -- JSON array of the deployments that it may use; NULL: all
    trusted INTEGER CHECK (trusted = 1),    -- 1: its requests may name their user by header; NULL: not
    CHECK ((revoked_at_ms IS NULL) = (revoked_by IS NULL)),
    FOREIGN KEY (team, project) REFERENCES projects,
    FOREIGN KEY (team, user) REFERENCES users
) STRICT;
CREATE INDEX keys_of_team ON keys (team, created_at_ms);

CREATE TABLE suspensions (
    subject TEXT NOT NULL,                  -- team:TEAM, project:TEAM/PROJECT, user:TEAM/USER or key:KEY_ID
    authority TEXT NOT NULL CHECK (authority IN ('operator', 'team')),  -- on whose authority; both can suspend
    team TEXT NOT NULL REFERENCES teams,
    reason TEXT,
    suspended_at_ms INTEGER NOT NULL,
    suspended_by TEXT NOT NULL,             -- actor
    PRIMARY KEY (subject, authority)
) STRICT, WITHOUT ROWID;

-- Double entry (credit/accounts.py lists the accounts) ----------------------------------------------------------------

CREATE TABLE transactions (
    txn INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,                     -- grant, settlement, expiry, refund, withdrawal, void or payment
    request_id TEXT,                        -- of a settlement or refund
    actor TEXT NOT NULL,
    reason TEXT,
    at_ms INTEGER NOT NULL,
    checksum TEXT NOT NULL,
    period TEXT                             -- YYYY-MM of the statement or counters that it changes; NULL: none
) STRICT;
CREATE INDEX transactions_taken ON transactions (kind) WHERE kind IN ('withdrawal', 'void');

CREATE TABLE entries (
    txn INTEGER NOT NULL REFERENCES transactions,
    line INTEGER NOT NULL,                  -- 1, 2, ... within the transaction
    account TEXT NOT NULL,
    amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd <> 0),  -- positive: into the account; a transaction sums to 0
    checksum TEXT NOT NULL,
    PRIMARY KEY (txn, line)
) STRICT, WITHOUT ROWID;

CREATE TABLE accounts (
    account TEXT NOT NULL PRIMARY KEY,      -- of all accounts but those of grants
    balance_nanousd INTEGER NOT NULL        -- the sum of the account's entries
) STRICT, WITHOUT ROWID;

CREATE TABLE grants (
    grant_id INTEGER PRIMARY KEY,
    team TEXT NOT NULL REFERENCES teams,
    kind TEXT NOT NULL,                     -- paid or promotional
    priority INTEGER NOT NULL,              -- the lowest is debited first
    amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd > 0),
    remaining_nanousd INTEGER NOT NULL CHECK (remaining_nanousd BETWEEN 0 AND amount_nanousd),
    expires_at_ms INTEGER,                  -- NULL: never
    note TEXT,
    origin TEXT,                            -- the rule that made it, such as signup:PLAN; NULL: an operator did
    txn INTEGER NOT NULL UNIQUE REFERENCES transactions,  -- that granted it
    created_at_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,               -- actor
    checksum TEXT NOT NULL,
    used_up INTEGER CHECK (used_up = 1),    -- 1: nothing remains. The indexes use it because it changes once, where
                                            -- remaining_nanousd changes with every settlement.
    UNIQUE (team, origin)
) STRICT;
CREATE INDEX grants_team ON grants (team);
CREATE INDEX grants_open ON grants (team) WHERE used_up IS NULL;
CREATE INDEX grants_expiring ON grants (expires_at_ms) WHERE used_up IS NULL AND expires_at_ms IS NOT NULL;

CREATE TABLE voids (
    grant_id INTEGER PRIMARY KEY REFERENCES grants,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    checksum TEXT NOT NULL
) STRICT;

CREATE TABLE refunds (
    txn INTEGER PRIMARY KEY REFERENCES transactions,
    request_id TEXT NOT NULL,
    team TEXT NOT NULL,                     -- from here to service_tier as in the request's usage row
    project TEXT NOT NULL,
    user TEXT,
    key_id TEXT NOT NULL REFERENCES keys,
    deployment TEXT NOT NULL,
    service_tier TEXT NOT NULL,
    amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd > 0),
    admitted_at_ms INTEGER NOT NULL,        -- of the request
    checksum TEXT NOT NULL,
    FOREIGN KEY (team, project) REFERENCES projects,
    FOREIGN KEY (team, user) REFERENCES users
) STRICT;
CREATE INDEX refunds_request ON refunds (request_id);
CREATE INDEX refunds_admitted ON refunds (admitted_at_ms);

CREATE TABLE statements (
    team TEXT NOT NULL REFERENCES teams,
    period TEXT NOT NULL,                   -- YYYY-MM
    charged_nanousd INTEGER NOT NULL CHECK (charged_nanousd >= 0),  -- settled on the receivable
    refunded_nanousd INTEGER NOT NULL CHECK (refunded_nanousd BETWEEN 0 AND charged_nanousd),
    paid_nanousd INTEGER NOT NULL CHECK (paid_nanousd BETWEEN 0 AND charged_nanousd),
    PRIMARY KEY (team, period)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    team TEXT NOT NULL REFERENCES teams,
    verb TEXT NOT NULL,                     -- grant, refund, withdraw, void, pay or raise
    key TEXT NOT NULL,                      -- the caller's
    body TEXT NOT NULL,                     -- the call, JSON with sorted names
    answer TEXT NOT NULL,                   -- the result, JSON with sorted names
    created_at_ms INTEGER NOT NULL,
    checksum TEXT NOT NULL,
    PRIMARY KEY (team, verb, key)
) STRICT, WITHOUT ROWID;

-- Requests: a hold before each priced one, a usage row after every one ------------------------------------------------

CREATE TABLE epochs (
    epoch INTEGER PRIMARY KEY,              -- 1, 2, 3, ...: a start of a server
    pid INTEGER NOT NULL,                   -- of that server's process
    began_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE holds (
    request_id TEXT NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL REFERENCES epochs,
    team TEXT NOT NULL,
    project TEXT NOT NULL,
    user TEXT,
    key_id TEXT NOT NULL REFERENCES keys,
    deployment TEXT NOT NULL,
    service_tier TEXT NOT NULL,
    input_picousd INTEGER NOT NULL,         -- price a token
    cached_input_picousd INTEGER,           -- price a token; NULL: cached tokens cost as much as others
    output_picousd INTEGER NOT NULL,        -- price a token
    prompt_tokens INTEGER NOT NULL CHECK (prompt_tokens >= 0),
    max_completion_tokens INTEGER NOT NULL CHECK (max_completion_tokens >= 0),
    amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd >= 0),  -- the request's worst case
    admitted_at_ms INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('held', 'settled', 'voided')),
    resolved_at_ms INTEGER,                 -- NULL while it is held
    checksum TEXT NOT NULL,
    postpaid INTEGER CHECK (postpaid = 1),  -- 1: admitted on caps alone, for the team was postpaid; NULL: on credit
    compute_picousd INTEGER CHECK (compute_picousd >= 0),  -- price a millisecond; NULL: billed by token
    multiplier_ppm INTEGER CHECK (multiplier_ppm >= 0),    -- of the service tier; NULL: one
    max_compute_ms INTEGER CHECK (max_compute_ms > 0),     -- worst case if billed by time or bounded; else NULL
    free INTEGER CHECK (free = 1),          -- 1: of a free deployment, its prices are 0; NULL: priced
    CHECK ((state = 'held') = (resolved_at_ms IS NULL)),
    FOREIGN KEY (team, project) REFERENCES projects,
    FOREIGN KEY (team, user) REFERENCES users
) STRICT;
-- Covers the sums of open holds, so that they read no other page.
CREATE INDEX holds_open ON holds (team, admitted_at_ms, project, user, key_id, amount_nanousd, prompt_tokens,
    max_completion_tokens, max_compute_ms, state) WHERE state = 'held';

CREATE TABLE usage (
    request_id TEXT NOT NULL PRIMARY KEY,
    team TEXT NOT NULL,
    project TEXT NOT NULL,
    user TEXT,
    key_id TEXT NOT NULL REFERENCES keys,
    deployment TEXT NOT NULL,
    service_tier TEXT NOT NULL,
    input_picousd INTEGER,                  -- prices as in the hold; all NULL: the deployment is free
    cached_input_picousd INTEGER,
    output_picousd INTEGER,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL CHECK (cached_tokens BETWEEN 0 AND prompt_tokens),  -- reused from the prefix cache
    completion_tokens INTEGER NOT NULL CHECK (completion_tokens >= 0),
    compute_ms INTEGER NOT NULL CHECK (compute_ms >= 0),
    cost_nanousd INTEGER NOT NULL CHECK (cost_nanousd >= 0),
    status TEXT NOT NULL CHECK (status IN ('completed', 'cancelled', 'failed')),
    finish_reason TEXT,
    admitted_at_ms INTEGER NOT NULL,
    finished_at_ms INTEGER NOT NULL,
    txn INTEGER REFERENCES transactions,    -- the settlement; NULL: it cost nothing
    checksum TEXT NOT NULL,
    compute_picousd INTEGER CHECK (compute_picousd >= 0),
    multiplier_ppm INTEGER CHECK (multiplier_ppm >= 0),
    CHECK ((cost_nanousd = 0) = (txn IS NULL)),
    CHECK (input_picousd IS NOT NULL OR cost_nanousd = 0),
    FOREIGN KEY (team, project) REFERENCES projects,
    FOREIGN KEY (team, user) REFERENCES users
) STRICT;
CREATE INDEX usage_admitted ON usage (admitted_at_ms);

-- Usage rows and resolved holds may be deleted once a rollup has summed them up; entries never.
CREATE TABLE rollups (
    rollup INTEGER PRIMARY KEY,             -- 1, 2, 3, ...
    until_ms INTEGER NOT NULL,              -- it took every request admitted before
    requests INTEGER NOT NULL CHECK (requests > 0),
    at_ms INTEGER NOT NULL,
    checksum TEXT NOT NULL
) STRICT;
CREATE INDEX rollups_until ON rollups (until_ms);

CREATE TABLE usage_daily (
    rollup INTEGER NOT NULL REFERENCES rollups,
    line INTEGER NOT NULL,                  -- 1, 2, ... within the rollup
    day_start_ms INTEGER NOT NULL CHECK (day_start_ms % 86400000 = 0),
    team TEXT NOT NULL REFERENCES teams,    -- from here to status what the sums are grouped by
    project TEXT NOT NULL,
    user TEXT,
    key_id TEXT NOT NULL REFERENCES keys,
    deployment TEXT NOT NULL,
    service_tier TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('completed', 'cancelled', 'failed')),
    requests INTEGER NOT NULL CHECK (requests > 0),
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL CHECK (cached_tokens BETWEEN 0 AND prompt_tokens),
    completion_tokens INTEGER NOT NULL CHECK (completion_tokens >= 0),
    compute_ms INTEGER NOT NULL CHECK (compute_ms >= 0),
    cost_nanousd INTEGER NOT NULL CHECK (cost_nanousd >= 0),
    checksum TEXT NOT NULL,
    PRIMARY KEY (rollup, line),
    FOREIGN KEY (team, project) REFERENCES projects,
    FOREIGN KEY (team, user) REFERENCES users
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_daily_day ON usage_daily (day_start_ms);

-- Terms of teams: plans, overage, budgets, caps, concurrency (BILLING R1, R6, R7, R10) --------------------------------

CREATE TABLE catalogs (
    seq INTEGER PRIMARY KEY,                -- 1, 2, 3, ...; the newest is in force
    catalog TEXT NOT NULL,                  -- plans and tiers, JSON
    actor TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    checksum TEXT NOT NULL
) STRICT;

CREATE TABLE billing (
    team TEXT NOT NULL PRIMARY KEY REFERENCES teams,
    overage TEXT CHECK (overage IN ('block', 'postpaid', 'contact')),  -- set by the operator; NULL: the plan's
    payment_method INTEGER NOT NULL CHECK (payment_method IN (0, 1)),
    earned_tier INTEGER NOT NULL CHECK (earned_tier BETWEEN 0 AND 4),
    changed_at_ms INTEGER NOT NULL,
    changed_by TEXT NOT NULL,               -- actor
    checksum TEXT NOT NULL,
    team_overage TEXT CHECK (team_overage IN ('block', 'postpaid', 'contact'))  -- the team's own choice; NULL: none
) STRICT, WITHOUT ROWID;

CREATE TABLE budgets (
    scope TEXT NOT NULL,                    -- as in counters; or each-project:TEAM, each-key:TEAM, each-user:TEAM
    period TEXT NOT NULL CHECK (period IN ('day', 'week', 'month', 'year', 'lifetime')),
    authority TEXT NOT NULL CHECK (authority IN ('operator', 'team')),  -- on whose authority; both can set one
    unit TEXT NOT NULL CHECK (unit IN ('usd', 'tokens', 'compute_ms')),
    team TEXT NOT NULL REFERENCES teams,
    amount INTEGER NOT NULL CHECK (amount >= 0),  -- the most that the scope uses in a period; of usd nano-USD
    set_at_ms INTEGER NOT NULL,
    set_by TEXT NOT NULL,                   -- actor
    checksum TEXT NOT NULL,
    PRIMARY KEY (scope, period, authority, unit)
) STRICT, WITHOUT ROWID;
CREATE INDEX budgets_team ON budgets (team);
-- Whether free requests of a team take holds.
CREATE INDEX budgets_usage ON budgets (team) WHERE unit <> 'usd';

CREATE TABLE cap_adjustments (
    adjustment_id INTEGER PRIMARY KEY,      -- 1, 2, 3, ...
    team TEXT NOT NULL REFERENCES teams,    -- all of whose caps are raised
    from_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd > 0),
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    txn INTEGER UNIQUE REFERENCES transactions,  -- the payment that raised them; NULL: an operator did
    checksum TEXT NOT NULL,
    CHECK (from_ms < until_ms)
) STRICT;
CREATE INDEX cap_adjustments_team ON cap_adjustments (team, until_ms);

CREATE TABLE concurrency (
    scope TEXT NOT NULL PRIMARY KEY,        -- a project or user, as in counters
    team TEXT NOT NULL REFERENCES teams,
    max_requests INTEGER NOT NULL CHECK (max_requests > 0),  -- at a time
    set_at_ms INTEGER NOT NULL,
    set_by TEXT NOT NULL,                   -- actor
    checksum TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row. Its number changes with the terms of any team, so that terms in memory are read again only then. It is
-- random: a number that was rolled back, or of another file, never returns with other terms.
CREATE TABLE terms (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
) STRICT;

CREATE TABLE counters (
    team TEXT NOT NULL,                     -- first in the key: all counters of a team are on one page
    scope TEXT NOT NULL,                    -- team:TEAM, project:TEAM/PROJECT, user:TEAM/USER or key:KEY_ID
    period TEXT NOT NULL,                   -- YYYY-MM; of a team also YYYY and lifetime
    posted_nanousd INTEGER NOT NULL CHECK (posted_nanousd >= 0),  -- cost of the period's requests, less refunds
    posted_tokens INTEGER NOT NULL DEFAULT 0 CHECK (posted_tokens >= 0),  -- of prompts and completions, free ones too
    posted_compute_ms INTEGER NOT NULL DEFAULT 0 CHECK (posted_compute_ms >= 0),
    PRIMARY KEY (team, scope, period)
) STRICT, WITHOUT ROWID;

-- Teams with a budget by day or week, whose days are counted.
CREATE TABLE day_counting (
    team TEXT NOT NULL PRIMARY KEY REFERENCES teams,
    first_day_ms INTEGER NOT NULL CHECK (first_day_ms % 86400000 = 0)  -- the Monday from which on they are
) STRICT, WITHOUT ROWID;

CREATE TABLE day_counters (
    team TEXT NOT NULL,
    day_start_ms INTEGER NOT NULL CHECK (day_start_ms % 86400000 = 0),
    scope TEXT NOT NULL,                    -- as in counters; the columns below too
    posted_nanousd INTEGER NOT NULL CHECK (posted_nanousd >= 0),
    posted_tokens INTEGER NOT NULL CHECK (posted_tokens >= 0),
    posted_compute_ms INTEGER NOT NULL CHECK (posted_compute_ms >= 0),
    PRIMARY KEY (team, day_start_ms, scope)
) STRICT, WITHOUT ROWID;

-- Alerts and their deliveries (BILLING R19) ---------------------------------------------------------------------------

CREATE TABLE alerts (
    alert_id INTEGER PRIMARY KEY,           -- 1, 2, 3, ...
    kind TEXT NOT NULL CHECK (kind IN ('threshold', 'low_balance')),
    team TEXT NOT NULL REFERENCES teams,
    scope TEXT NOT NULL,                    -- as in counters
    source TEXT NOT NULL,                   -- of the cap: plan, tier, [team_]budget, [team_]default; credit, refusal
    period TEXT NOT NULL,                   -- as in counters; of a low balance `grant ID` or `no grant`
    unit TEXT NOT NULL CHECK (unit IN ('usd', 'tokens', 'compute_ms')),
    threshold_percent INTEGER NOT NULL CHECK (threshold_percent BETWEEN 1 AND 100),
    limit_amount INTEGER NOT NULL CHECK (limit_amount >= 0),  -- the cap, or the last grant; of usd nano-USD
    value_amount INTEGER NOT NULL CHECK (value_amount >= 0),  -- what was used, or what is left
    at_ms INTEGER NOT NULL,
    checksum TEXT NOT NULL,
    UNIQUE (kind, scope, source, period, unit, threshold_percent)
) STRICT;

CREATE TABLE deliveries (
    alert_id INTEGER NOT NULL,
    url TEXT NOT NULL,                      -- of the webhook
    attempts INTEGER NOT NULL CHECK (attempts >= 0),
    next_at_ms INTEGER,                     -- the next attempt; exactly one of these three instants is set
    delivered_at_ms INTEGER,
    dead_at_ms INTEGER,                     -- when it was given up
    last_error TEXT,
    PRIMARY KEY (alert_id, url),
    CHECK ((next_at_ms IS NULL) + (delivered_at_ms IS NULL) + (dead_at_ms IS NULL) = 2)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_next ON deliveries (next_at_ms) WHERE next_at_ms IS NOT NULL;

-- Ends of batches and of responses in the background, for the operator's webhooks. The texts are not in the ledger.
CREATE TABLE events (
    event_id INTEGER PRIMARY KEY,           -- 1, 2, 3, ...
    type TEXT NOT NULL,                     -- such as batch.completed
    team TEXT NOT NULL REFERENCES teams,
    object_id TEXT NOT NULL UNIQUE,         -- the batch or response, which ends once
    at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE event_deliveries (
    event_id INTEGER NOT NULL,
    url TEXT NOT NULL,                      -- of the webhook
    attempts INTEGER NOT NULL CHECK (attempts >= 0),
    next_at_ms INTEGER,                     -- the next attempt; exactly one of these three instants is set
    delivered_at_ms INTEGER,
    dead_at_ms INTEGER,                     -- when it was given up
    last_error TEXT,
    PRIMARY KEY (event_id, url),
    CHECK ((next_at_ms IS NULL) + (delivered_at_ms IS NULL) + (dead_at_ms IS NULL) = 2)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_deliveries_next ON event_deliveries (next_at_ms) WHERE next_at_ms IS NOT NULL;

-- Files and batches (BILLING R23). Their contents are in files beside the ledger. -------------------------------------

CREATE TABLE files (
    file_id TEXT NOT NULL PRIMARY KEY,
    team TEXT NOT NULL,
    project TEXT NOT NULL,
    user TEXT,
    key_id TEXT NOT NULL REFERENCES keys,
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL CHECK (purpose IN ('batch', 'batch_output')),
    num_bytes INTEGER NOT NULL CHECK (num_bytes >= 0),
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    deleted_at_ms INTEGER,                  -- NULL: it is there
    checksum TEXT NOT NULL DEFAULT '',
    FOREIGN KEY (team, project) REFERENCES projects,
    FOREIGN KEY (team, user) REFERENCES users
) STRICT, WITHOUT ROWID;
CREATE INDEX files_of ON files (team, project, created_at_ms, file_id) WHERE deleted_at_ms IS NULL;
CREATE INDEX files_expiring ON files (expires_at_ms) WHERE deleted_at_ms IS NULL;

CREATE TABLE batches (
    batch_id TEXT NOT NULL PRIMARY KEY,
    team TEXT NOT NULL,
    project TEXT NOT NULL,
    user TEXT,
    key_id TEXT NOT NULL REFERENCES keys,
    endpoint TEXT NOT NULL,                 -- path of its requests, such as /v1/chat/completions
    input_file_id TEXT NOT NULL REFERENCES files,
    metadata TEXT,                          -- the caller's, JSON
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('validating', 'failed', 'in_progress', 'finalizing', 'completed',
        'expired', 'cancelling', 'cancelled')),
    num_total INTEGER NOT NULL CHECK (num_total >= 0),          -- requests of its input file
    num_completed INTEGER NOT NULL CHECK (num_completed >= 0),
    num_failed INTEGER NOT NULL CHECK (num_failed >= 0),
    queued_tokens INTEGER NOT NULL CHECK (queued_tokens >= 0),  -- prompt tokens of its valid requests
    output_file_id TEXT REFERENCES files,
    error_file_id TEXT REFERENCES files,
    in_progress_at_ms INTEGER,
    finalizing_at_ms INTEGER,
    completed_at_ms INTEGER,
    failed_at_ms INTEGER,
    expired_at_ms INTEGER,
    cancelling_at_ms INTEGER,
    cancelled_at_ms INTEGER,
    output_kept_ms INTEGER CHECK (output_kept_ms > 0),          -- duration; NULL: as long as other files
    prompt_tokens INTEGER CHECK (prompt_tokens >= 0),           -- sums over its output file; NULL until it has ended
    cached_tokens INTEGER CHECK (cached_tokens BETWEEN 0 AND prompt_tokens),
    completion_tokens INTEGER CHECK (completion_tokens >= 0),
    reasoning_tokens INTEGER CHECK (reasoning_tokens BETWEEN 0 AND completion_tokens),
    cost_nanousd INTEGER CHECK (cost_nanousd >= 0),
    checksum TEXT NOT NULL DEFAULT '',
    CHECK (num_completed + num_failed <= num_total),
    FOREIGN KEY (team, project) REFERENCES projects,
    FOREIGN KEY (team, user) REFERENCES users
) STRICT, WITHOUT ROWID;
CREATE INDEX batches_of ON batches (team, project, created_at_ms, batch_id);
CREATE INDEX batches_active ON batches (team) WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling');

-- The audit log, and what the ledger remembers of itself --------------------------------------------------------------

CREATE TABLE log (
    seq INTEGER PRIMARY KEY,                -- 1, 2, 3, ...
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,                   -- noun and verb, such as keys.revoke
    team TEXT,                              -- NULL: it concerns no team
    details TEXT NOT NULL,                  -- arguments of the change and ids of new rows, JSON; never a secret
    checksum TEXT NOT NULL
) STRICT;
CREATE INDEX log_of_team ON log (team, seq);

CREATE TABLE clock (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seen_ms INTEGER NOT NULL,               -- the latest instant that a server trusted; 0: none yet
    paused_because TEXT                     -- why credit does not expire; NULL: it does
) STRICT;

CREATE TABLE sequences (
    numbered TEXT NOT NULL PRIMARY KEY,     -- a table whose rows are numbered 1, 2, 3, ...
    newest INTEGER NOT NULL CHECK (newest >= 0)  -- its newest number, so that a missing newest row is noticed
) STRICT, WITHOUT ROWID;

INSERT INTO terms (id, version) VALUES (1, random());
INSERT INTO clock (id, seen_ms, paused_because) VALUES (1, 0, NULL);
INSERT INTO sequences (numbered, newest)
    VALUES ('log', 0), ('alerts', 0), ('cap_adjustments', 0), ('catalogs', 0), ('rollups', 0), ('epochs', 0);

-- Views ---------------------------------------------------------------------------------------------------------------

-- Every account, those of grants too.
CREATE VIEW balances AS
    SELECT account, balance_nanousd FROM accounts
    UNION ALL
    SELECT 'team:' || team || ':credit:' || grant_id, remaining_nanousd FROM grants;

-- Posted and held amounts of every scope and period; `counters` has the posted ones alone.
CREATE VIEW counts AS
    WITH open AS (
        SELECT team, project, user, key_id, amount_nanousd AS nanousd,
            prompt_tokens + max_completion_tokens AS tokens, coalesce(max_compute_ms, 0) AS compute_ms,
            strftime('%Y-%m', admitted_at_ms / 1000, 'unixepoch') AS month FROM holds WHERE state = 'held'
    ), held AS (
        SELECT team, 'team:' || team AS scope, month AS period, nanousd, tokens, compute_ms FROM open
        UNION ALL SELECT team, 'team:' || team, substr(month, 1, 4), nanousd, tokens, compute_ms FROM open
        UNION ALL SELECT team, 'team:' || team, 'lifetime', nanousd, tokens, compute_ms FROM open
        UNION ALL SELECT team, 'project:' || team || '/' || project, month, nanousd, tokens, compute_ms FROM open
        UNION ALL SELECT team, 'key:' || key_id, month, nanousd, tokens, compute_ms FROM open
        UNION ALL
        SELECT team, 'user:' || team || '/' || user, month, nanousd, tokens, compute_ms FROM open WHERE user IS NOT NULL
    ), moved AS (
        SELECT team, scope, period, posted_nanousd, posted_tokens, posted_compute_ms,
            0 AS nanousd, 0 AS tokens, 0 AS compute_ms FROM counters
        UNION ALL SELECT team, scope, period, 0, 0, 0, nanousd, tokens, compute_ms FROM held
    )
    SELECT team, scope, period, sum(posted_nanousd) AS posted_nanousd, sum(nanousd) AS held_nanousd,
        sum(posted_tokens) AS posted_tokens, sum(tokens) AS held_tokens,
        sum(posted_compute_ms) AS posted_compute_ms, sum(compute_ms) AS held_compute_ms
    FROM moved GROUP BY team, scope, period;

-- Every request once, whether its usage row is there or was rolled up.
CREATE VIEW usage_sums AS
    SELECT admitted_at_ms, team, project, user, key_id, deployment, service_tier, status, 1 AS requests,
        prompt_tokens, cached_tokens, completion_tokens, compute_ms, cost_nanousd FROM usage
    UNION ALL
    SELECT day_start_ms, team, project, user, key_id, deployment, service_tier, status, requests,
        prompt_tokens, cached_tokens, completion_tokens, compute_ms, cost_nanousd FROM usage_daily;

-- Triggers: append-only tables ----------------------------------------------------------------------------------------

CREATE TRIGGER transactions_no_update BEFORE UPDATE ON transactions
    BEGIN SELECT RAISE(ABORT, 'transactions is append-only'); END;
CREATE TRIGGER transactions_no_delete BEFORE DELETE ON transactions
    BEGIN SELECT RAISE(ABORT, 'rows of transactions are never deleted'); END;
CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries is append-only'); END;
CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'rows of entries are never deleted'); END;
CREATE TRIGGER idempotency_no_update BEFORE UPDATE ON idempotency
    BEGIN SELECT RAISE(ABORT, 'idempotency is append-only'); END;
CREATE TRIGGER idempotency_no_delete BEFORE DELETE ON idempotency
    BEGIN SELECT RAISE(ABORT, 'rows of idempotency are never deleted'); END;
CREATE TRIGGER epochs_no_update BEFORE UPDATE ON epochs
    BEGIN SELECT RAISE(ABORT, 'epochs is append-only'); END;
CREATE TRIGGER epochs_no_delete BEFORE DELETE ON epochs
    BEGIN SELECT RAISE(ABORT, 'rows of epochs are never deleted'); END;
CREATE TRIGGER cap_adjustments_no_update BEFORE UPDATE ON cap_adjustments
    BEGIN SELECT RAISE(ABORT, 'cap_adjustments is append-only'); END;
CREATE TRIGGER cap_adjustments_no_delete BEFORE DELETE ON cap_adjustments
    BEGIN SELECT RAISE(ABORT, 'rows of cap_adjustments are never deleted'); END;
CREATE TRIGGER refunds_no_update BEFORE UPDATE ON refunds
    BEGIN SELECT RAISE(ABORT, 'refunds is append-only'); END;
CREATE TRIGGER refunds_no_delete BEFORE DELETE ON refunds
    BEGIN SELECT RAISE(ABORT, 'rows of refunds are never deleted'); END;
CREATE TRIGGER voids_no_update BEFORE UPDATE ON voids
    BEGIN SELECT RAISE(ABORT, 'voids is append-only'); END;
CREATE TRIGGER voids_no_delete BEFORE DELETE ON voids
    BEGIN SELECT RAISE(ABORT, 'rows of voids are never deleted'); END;
CREATE TRIGGER alerts_no_update BEFORE UPDATE ON alerts
    BEGIN SELECT RAISE(ABORT, 'alerts is append-only'); END;
CREATE TRIGGER alerts_no_delete BEFORE DELETE ON alerts
    BEGIN SELECT RAISE(ABORT, 'rows of alerts are never deleted'); END;
CREATE TRIGGER log_no_update BEFORE UPDATE ON log
    BEGIN SELECT RAISE(ABORT, 'log is append-only'); END;
CREATE TRIGGER log_no_delete BEFORE DELETE ON log
    BEGIN SELECT RAISE(ABORT, 'rows of log are never deleted'); END;
CREATE TRIGGER rollups_no_update BEFORE UPDATE ON rollups
    BEGIN SELECT RAISE(ABORT, 'rollups is append-only'); END;
CREATE TRIGGER rollups_no_delete BEFORE DELETE ON rollups
    BEGIN SELECT RAISE(ABORT, 'rows of rollups are never deleted'); END;
CREATE TRIGGER usage_daily_no_update BEFORE UPDATE ON usage_daily
    BEGIN SELECT RAISE(ABORT, 'usage_daily is append-only'); END;
CREATE TRIGGER usage_daily_no_delete BEFORE DELETE ON usage_daily
    BEGIN SELECT RAISE(ABORT, 'rows of usage_daily are never deleted'); END;
CREATE TRIGGER catalogs_no_update BEFORE UPDATE ON catalogs
    BEGIN SELECT RAISE(ABORT, 'catalogs is append-only'); END;
CREATE TRIGGER catalogs_no_delete BEFORE DELETE ON catalogs
    BEGIN SELECT RAISE(ABORT, 'rows of catalogs are never deleted'); END;
CREATE TRIGGER usage_no_update BEFORE UPDATE ON usage
    BEGIN SELECT RAISE(ABORT, 'usage is append-only'); END;
-- Until a rollup has summed the row up.
CREATE TRIGGER usage_no_delete BEFORE DELETE ON usage
    WHEN old.admitted_at_ms >= coalesce((SELECT max(until_ms) FROM rollups), 0)
    BEGIN SELECT RAISE(ABORT, 'rows of usage are never deleted'); END;

-- Triggers: rows that are never deleted -------------------------------------------------------------------------------

CREATE TRIGGER teams_no_delete BEFORE DELETE ON teams
    BEGIN SELECT RAISE(ABORT, 'rows of teams are never deleted'); END;
CREATE TRIGGER projects_no_delete BEFORE DELETE ON projects
    BEGIN SELECT RAISE(ABORT, 'rows of projects are never deleted'); END;
CREATE TRIGGER users_no_delete BEFORE DELETE ON users
    BEGIN SELECT RAISE(ABORT, 'rows of users are never deleted'); END;
CREATE TRIGGER keys_no_delete BEFORE DELETE ON keys
    BEGIN SELECT RAISE(ABORT, 'rows of keys are never deleted'); END;
CREATE TRIGGER grants_no_delete BEFORE DELETE ON grants
    BEGIN SELECT RAISE(ABORT, 'rows of grants are never deleted'); END;
CREATE TRIGGER files_no_delete BEFORE DELETE ON files
    BEGIN SELECT RAISE(ABORT, 'rows of files are never deleted'); END;
CREATE TRIGGER batches_no_delete BEFORE DELETE ON batches
    BEGIN SELECT RAISE(ABORT, 'rows of batches are never deleted'); END;
CREATE TRIGGER statements_no_delete BEFORE DELETE ON statements
    BEGIN SELECT RAISE(ABORT, 'rows of statements are never deleted'); END;
CREATE TRIGGER events_no_update BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events is append-only'); END;
CREATE TRIGGER events_no_delete BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'rows of events are never deleted'); END;
CREATE TRIGGER event_deliveries_no_delete BEFORE DELETE ON event_deliveries
    BEGIN SELECT RAISE(ABORT, 'rows of event_deliveries are never deleted'); END;
CREATE TRIGGER deliveries_no_delete BEFORE DELETE ON deliveries
    BEGIN SELECT RAISE(ABORT, 'rows of deliveries are never deleted'); END;
CREATE TRIGGER clock_no_delete BEFORE DELETE ON clock
    BEGIN SELECT RAISE(ABORT, 'rows of clock are never deleted'); END;
CREATE TRIGGER sequences_no_delete BEFORE DELETE ON sequences
    BEGIN SELECT RAISE(ABORT, 'rows of sequences are never deleted'); END;
CREATE TRIGGER terms_no_delete BEFORE DELETE ON terms
    BEGIN SELECT RAISE(ABORT, 'rows of terms are never deleted'); END;
-- Until a rollup has summed the row up.
CREATE TRIGGER holds_no_delete BEFORE DELETE ON holds
    WHEN old.state = 'held' OR old.admitted_at_ms >= coalesce((SELECT max(until_ms) FROM rollups), 0)
    BEGIN SELECT RAISE(ABORT, 'rows of holds are never deleted'); END;

-- Triggers: only the state of a row changes, and only forward ---------------------------------------------------------

CREATE TRIGGER keys_fixed BEFORE UPDATE OF
    key_id, team, project, user, label, secret_sha256, last4, expires_at_ms, created_at_ms, created_by, scopes,
    models, trusted, checksum
    ON keys
    BEGIN SELECT RAISE(ABORT, 'a key can only be revoked'); END;
CREATE TRIGGER keys_once BEFORE UPDATE ON keys WHEN old.revoked_at_ms IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'a revoked key stays so'); END;
CREATE TRIGGER grants_fixed BEFORE UPDATE OF
    grant_id, team, kind, priority, amount_nanousd, expires_at_ms, note, origin, txn, created_at_ms, created_by,
    checksum
    ON grants
    BEGIN SELECT RAISE(ABORT, 'only the rest of a grant changes'); END;
CREATE TRIGGER holds_fixed BEFORE UPDATE OF
    request_id, epoch, team, project, user, key_id, deployment, service_tier, input_picousd,
    cached_input_picousd, output_picousd, prompt_tokens, max_completion_tokens, amount_nanousd, admitted_at_ms,
    postpaid, compute_picousd, multiplier_ppm, max_compute_ms, free, checksum
    ON holds
    BEGIN SELECT RAISE(ABORT, 'only the state of a hold changes'); END;
CREATE TRIGGER holds_once BEFORE UPDATE ON holds WHEN old.state <> 'held'
    BEGIN SELECT RAISE(ABORT, 'a hold is resolved exactly once'); END;
CREATE TRIGGER statements_fixed BEFORE UPDATE OF
    team, period
    ON statements
    BEGIN SELECT RAISE(ABORT, 'only the amounts of a statement change'); END;
CREATE TRIGGER suspensions_no_update BEFORE UPDATE ON suspensions
    BEGIN SELECT RAISE(ABORT, 'a suspension is ended, not changed'); END;
CREATE TRIGGER files_fixed BEFORE UPDATE OF
    file_id, team, project, user, key_id, filename, purpose, num_bytes, created_at_ms, checksum
    ON files
    BEGIN SELECT RAISE(ABORT, 'only the end of a file changes'); END;
CREATE TRIGGER files_once BEFORE UPDATE ON files WHEN old.deleted_at_ms IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'a deleted file stays so'); END;
CREATE TRIGGER batches_fixed BEFORE UPDATE OF
    batch_id, team, project, user, key_id, endpoint, input_file_id, metadata, created_at_ms, expires_at_ms,
    output_kept_ms, checksum
    ON batches
    BEGIN SELECT RAISE(ABORT, 'only the state of a batch changes'); END;
CREATE TRIGGER batches_once BEFORE UPDATE ON batches WHEN old.status IN ('failed', 'completed', 'expired', 'cancelled')
    BEGIN SELECT RAISE(ABORT, 'a batch ends once'); END;

-- Triggers: the newest number of each numbered table ------------------------------------------------------------------

CREATE TRIGGER log_numbered AFTER INSERT ON log
    BEGIN UPDATE sequences SET newest = new.seq WHERE numbered = 'log'; END;
CREATE TRIGGER alerts_numbered AFTER INSERT ON alerts
    BEGIN UPDATE sequences SET newest = new.alert_id WHERE numbered = 'alerts'; END;
CREATE TRIGGER cap_adjustments_numbered AFTER INSERT ON cap_adjustments
    BEGIN UPDATE sequences SET newest = new.adjustment_id WHERE numbered = 'cap_adjustments'; END;
CREATE TRIGGER catalogs_numbered AFTER INSERT ON catalogs
    BEGIN UPDATE sequences SET newest = new.seq WHERE numbered = 'catalogs'; END;
CREATE TRIGGER rollups_numbered AFTER INSERT ON rollups
    BEGIN UPDATE sequences SET newest = new.rollup WHERE numbered = 'rollups'; END;
CREATE TRIGGER epochs_numbered AFTER INSERT ON epochs
    BEGIN UPDATE sequences SET newest = new.epoch WHERE numbered = 'epochs'; END;

-- Triggers: a new number in `terms` with each change of what terms are read from --------------------------------------

CREATE TRIGGER teams_terms_insert AFTER INSERT ON teams
    BEGIN UPDATE terms SET version = random(); END;
CREATE TRIGGER teams_terms_update AFTER UPDATE ON teams
    BEGIN UPDATE terms SET version = random(); END;
CREATE TRIGGER billing_terms_insert AFTER INSERT ON billing
    BEGIN UPDATE terms SET version = random(); END;
CREATE TRIGGER billing_terms_update AFTER UPDATE ON billing
    BEGIN UPDATE terms SET version = random(); END;
CREATE TRIGGER billing_terms_delete AFTER DELETE ON billing
    BEGIN UPDATE terms SET version = random(); END;
CREATE TRIGGER budgets_terms_insert AFTER INSERT ON budgets
    BEGIN UPDATE terms SET version = random(); END;
CREATE TRIGGER budgets_terms_update AFTER UPDATE ON budgets
    BEGIN UPDATE terms SET version = random(); END;
CREATE TRIGGER budgets_terms_delete AFTER DELETE ON budgets
    BEGIN UPDATE terms SET version = random(); END;
CREATE TRIGGER cap_adjustments_terms_insert AFTER INSERT ON cap_adjustments
    BEGIN UPDATE terms SET version = random(); END;
CREATE TRIGGER catalogs_terms_insert AFTER INSERT ON catalogs
    BEGIN UPDATE terms SET version = random(); END;
