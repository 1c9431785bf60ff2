package tokenstore

import (
	"log/slog"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
)

// invalidAuthorization is the class of SQLSTATE codes with which a server turns a login down.
const invalidAuthorization = "28"

// login is the user and password for new connections. When the server turns them down, the DSN is read once more before
// the next connection, since a password may be changed while we run; nothing else of a DSN is.
type login struct {
	again func() (dsn string, err error) // nil: what was given stays
	log   *slog.Logger
	name  string // what the log calls the database

	mu             sync.Mutex
	refused        bool // what is in use, and not read again since
	told           bool // the log knows that
	changed        bool // to these
	user, password string
}

// use has cfg log in with what is known to be good, or the next thing to try.
func (l *login) use(cfg *pgx.ConnConfig) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refused && l.again != nil {
		if dsn, err := l.again(); err == nil { // else what there was is tried again
			if c, err := parseDSN(dsn); err == nil {
				user, password := c.ConnConfig.User, c.ConnConfig.Password
				l.told = l.told && user == l.user && password == l.password
				l.user, l.password, l.changed = user, password, true
			}
		}
		l.refused = false
	}
	if l.changed {
		cfg.User, cfg.Password = l.user, l.password
	}
}

// failed hears why a connection could not be made.
func (l *login) failed(err error) {
	answer, ok := serverError(err)
	if !ok || !strings.HasPrefix(answer.Code, invalidAuthorization) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = true
	if !l.told {
		l.log.Warn(l.name+" does not take our user and password", "error", err)
		l.told = true
	}
}
