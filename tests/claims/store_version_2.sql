PRAGMA user_version = 2;
PRAGMA application_id = 1919184231;
BEGIN TRANSACTION;
CREATE TABLE cases (
	claim_id VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	worker VARCHAR NOT NULL, 
	version INTEGER NOT NULL, 
	created DOUBLE NOT NULL, 
	updated DOUBLE NOT NULL, 
	deadline DOUBLE NOT NULL, 
	deadline_reported BOOLEAN NOT NULL, 
	order_id VARCHAR NOT NULL, 
	product VARCHAR NOT NULL, 
	merchant VARCHAR NOT NULL, 
	amount INTEGER NOT NULL, 
	currency VARCHAR NOT NULL, 
	buyer VARCHAR NOT NULL, 
	buyer_shared VARCHAR NOT NULL, 
	device VARCHAR NOT NULL, 
	recommendation VARCHAR NOT NULL, 
	probability DOUBLE, 
	expected_loss DOUBLE NOT NULL, 
	same_photos VARCHAR NOT NULL, 
	PRIMARY KEY (claim_id)
);
CREATE TABLE decisions (
	claim_id VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	action VARCHAR NOT NULL, 
	reason VARCHAR NOT NULL, 
	amount INTEGER NOT NULL, 
	"by" VARCHAR NOT NULL, 
	at DOUBLE NOT NULL, 
	confirmed_by VARCHAR NOT NULL, 
	final_at DOUBLE, 
	is_final BOOLEAN NOT NULL, 
	undone BOOLEAN NOT NULL, 
	state_before VARCHAR NOT NULL, 
	PRIMARY KEY (claim_id, number)
);
CREATE TABLE deliveries (
	id INTEGER NOT NULL, 
	url VARCHAR NOT NULL, 
	event VARCHAR NOT NULL, 
	body VARCHAR NOT NULL, 
	claim_id VARCHAR NOT NULL, 
	created DOUBLE NOT NULL, 
	status VARCHAR NOT NULL, 
	attempts INTEGER NOT NULL, 
	next_at DOUBLE NOT NULL, 
	error VARCHAR NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE events (
	"index" INTEGER NOT NULL, 
	claim_id VARCHAR NOT NULL, 
	time VARCHAR NOT NULL, 
	event VARCHAR NOT NULL, 
	payload VARCHAR NOT NULL, 
	payload_sha256 VARCHAR NOT NULL, 
	previous VARCHAR NOT NULL, 
	hash VARCHAR NOT NULL, 
	PRIMARY KEY ("index")
);
INSERT INTO "events" VALUES(0,'A','2026-11-30T04:51:50.702+00:00','tried','{"claim_id":"A"}','b2e69f3dfbf84446ca0e518063008766f239944c5de48548a977c7574855528e','0000000000000000000000000000000000000000000000000000000000000000','a942b682f8994233a20dfc69b282f39f8cbf7f6682d84dad4ce1f75b0c7372f9');
CREATE TABLE foreign_hashes (
	shop VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	hash VARCHAR NOT NULL, 
	serial INTEGER NOT NULL, 
	expires DOUBLE NOT NULL, 
	PRIMARY KEY (shop, kind, hash)
);
CREATE TABLE jobs (
	id VARCHAR NOT NULL, 
	claim_id VARCHAR NOT NULL, 
	worker VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	error VARCHAR NOT NULL, 
	created DOUBLE NOT NULL, 
	finished DOUBLE NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE links (
	token VARCHAR NOT NULL, 
	claim_id VARCHAR NOT NULL, 
	side VARCHAR NOT NULL, 
	nonce VARCHAR NOT NULL, 
	created DOUBLE NOT NULL, 
	expires DOUBLE NOT NULL, 
	used DOUBLE NOT NULL, 
	revoked BOOLEAN NOT NULL, 
	PRIMARY KEY (token)
);
CREATE TABLE photos (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	claim_id VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	seen VARCHAR NOT NULL, 
	sha256 BLOB NOT NULL, 
	coarse INTEGER NOT NULL, 
	fine BLOB NOT NULL, 
	thumbnail BLOB NOT NULL, 
	UNIQUE (claim_id, sha256)
);
CREATE TABLE reviews (
	id INTEGER NOT NULL, 
	photo_sha256 VARCHAR NOT NULL, 
	decision VARCHAR NOT NULL, 
	damage VARCHAR NOT NULL, 
	file_name VARCHAR NOT NULL, 
	claim_id VARCHAR NOT NULL, 
	note VARCHAR NOT NULL, 
	reviewer VARCHAR NOT NULL, 
	key_name VARCHAR NOT NULL, 
	outcome VARCHAR, 
	score DOUBLE, 
	model_version VARCHAR NOT NULL, 
	decided_at VARCHAR NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE settings (
	name VARCHAR NOT NULL, 
	value DOUBLE NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE statements (
	claim_id VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	side VARCHAR NOT NULL, 
	received DOUBLE NOT NULL, 
	text VARCHAR NOT NULL, 
	folder VARCHAR NOT NULL, 
	PRIMARY KEY (claim_id, number)
);
CREATE INDEX photos_coarse ON photos (id, coarse);
CREATE INDEX ix_photos_seen ON photos (seen);
CREATE INDEX ix_photos_sha256 ON photos (sha256);
CREATE INDEX ix_foreign_hashes_hash ON foreign_hashes (hash);
CREATE INDEX ix_cases_state ON cases (state);
CREATE INDEX ix_cases_deadline ON cases (deadline);
CREATE INDEX ix_cases_order_id ON cases (order_id);
CREATE INDEX ix_cases_buyer ON cases (buyer);
CREATE INDEX ix_cases_expected_loss ON cases (expected_loss);
CREATE INDEX ix_cases_merchant ON cases (merchant);
CREATE INDEX ix_cases_device ON cases (device);
CREATE INDEX ix_decisions_final_at ON decisions (final_at);
CREATE INDEX ix_decisions_is_final ON decisions (is_final);
CREATE INDEX ix_links_claim_id ON links (claim_id);
CREATE INDEX reviews_by_photo ON reviews (photo_sha256, id);
CREATE INDEX ix_reviews_decided_at ON reviews (decided_at);
CREATE INDEX ix_reviews_claim_id ON reviews (claim_id);
CREATE INDEX ix_deliveries_status ON deliveries (status);
CREATE INDEX ix_deliveries_claim_id ON deliveries (claim_id);
CREATE INDEX ix_events_claim_id ON events (claim_id);
DELETE FROM "sqlite_sequence";
COMMIT;
