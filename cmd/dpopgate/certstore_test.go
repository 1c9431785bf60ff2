package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/certmagic"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

const storageKey = "a storage key of some length, to be sure"

// newCertStore opens a store on a database that has the tables.
func newCertStore(t *testing.T, dsn string, o certStoreOptions) *certStore {
	t.Helper()
	s, err := openCertStore(context.Background(), dsn, o)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

// migratedDatabase is the DSN of a database that has the tables and nothing in them.
func migratedDatabase(t *testing.T) string {
	t.Helper()
	dsn := tokenstoretest.Postgres(t)
	require.NoError(t, newCertStore(t, dsn, certStoreOptions{}).Migrate(t.Context()))
	return dsn
}

// overStorages runs a test over every storage; open gives another instance on the same data.
func overStorages(t *testing.T, test func(t *testing.T, open func() certmagic.Storage)) {
	t.Run("folder", func(t *testing.T) {
		t.Parallel()
		folder := t.TempDir()
		test(t, func() certmagic.Storage { return &certmagic.FileStorage{Path: folder} })
	})
	for name, o := range map[string]certStoreOptions{"postgres": {}, "postgres sealed": {Key: storageKey}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := migratedDatabase(t)
			test(t, func() certmagic.Storage { return newCertStore(t, dsn, o) })
		})
	}
}

func TestCertStorageKeepsValues(t *testing.T) {
	t.Parallel()
	overStorages(t, func(t *testing.T, open func() certmagic.Storage) {
		ctx, one, other := t.Context(), open(), open()
		binary := string([]byte{0, 255, '\\', '\n'})
		for _, value := range []string{"first", "second, and longer", binary, ""} {
			require.NoError(t, one.Store(ctx, "a/b/key", []byte(value)))
			got, err := other.Load(ctx, "a/b/key")
			require.NoError(t, err)
			assert.Equal(t, value, string(got))
			info, err := other.Stat(ctx, "a/b/key")
			require.NoError(t, err)
			assert.Equal(t, "a/b/key", info.Key)
			assert.True(t, info.IsTerminal)
			assert.EqualValues(t, len(value), info.Size)
			assert.False(t, info.Modified.IsZero())
		}
		require.NoError(t, one.Store(ctx, "nil", nil))
		got, err := other.Load(ctx, "nil")
		require.NoError(t, err)
		assert.Empty(t, got)
	})
}

func TestCertStorageSaysThatAKeyIsMissing(t *testing.T) {
	t.Parallel()
	overStorages(t, func(t *testing.T, open func() certmagic.Storage) {
		ctx, s := t.Context(), open()
		require.NoError(t, s.Store(ctx, "ab/c", []byte("v")))
		for _, key := range []string{"a", "a/b", "ab/cd", "ab/c.x", "AB/c", "ab/_"} {
			_, err := s.Load(ctx, key)
			assert.ErrorIs(t, err, fs.ErrNotExist, key)
			_, err = s.Stat(ctx, key)
			assert.ErrorIs(t, err, fs.ErrNotExist, key)
			for _, recursive := range []bool{false, true} {
				_, err = s.List(ctx, key, recursive)
				assert.ErrorIs(t, err, fs.ErrNotExist, key)
			}
			assert.False(t, s.Exists(ctx, key), key)
			assert.NoError(t, s.Delete(ctx, key), key)
		}
		assert.True(t, s.Exists(ctx, "ab/c"))
		_, err := s.Load(ctx, "ab")
		assert.Error(t, err, "a folder has no value")
	})
}

func TestCertStorageDeletesAFolderWithAllInIt(t *testing.T) {
	t.Parallel()
	overStorages(t, func(t *testing.T, open func() certmagic.Storage) {
		ctx, s := t.Context(), open()
		for _, key := range []string{"a/b", "a/c/d", "ab", "a.b/c", "a_/b", "a%/b", `a\/b`, "é/b"} {
			require.NoError(t, s.Store(ctx, key, []byte("v")))
		}
		require.NoError(t, s.Delete(ctx, "a"))
		left, err := s.List(ctx, "", true)
		require.NoError(t, err)
		assert.ElementsMatch(t, []string{"ab", "a.b", "a.b/c", "a_", "a_/b", "a%", "a%/b", `a\`, `a\/b`, "é", "é/b"}, left)
	})
}

func TestCertStorageListsWholeKeys(t *testing.T) {
	t.Parallel()
	overStorages(t, func(t *testing.T, open func() certmagic.Storage) {
		ctx, s := t.Context(), open()
		for _, key := range []string{"x/site/a.crt", "x/site/a.key", "x/site-2/b.crt", "x/top"} {
			require.NoError(t, s.Store(ctx, key, []byte("v")))
		}
		for _, c := range []struct {
			folder    string
			recursive bool
			want      []string
		}{
			{"", false, []string{"x"}},
			{"x", false, []string{"x/site", "x/site-2", "x/top"}},
			{"x", true, []string{"x/site", "x/site/a.crt", "x/site/a.key", "x/site-2", "x/site-2/b.crt", "x/top"}},
			{"x/site", false, []string{"x/site/a.crt", "x/site/a.key"}},
			{"x/top", true, nil},
		} {
			got, err := s.List(ctx, c.folder, c.recursive)
			require.NoError(t, err, c.folder)
			assert.ElementsMatch(t, c.want, got, "%q, recursive %t", c.folder, c.recursive)
		}
		info, err := s.Stat(ctx, "x/site")
		require.NoError(t, err)
		assert.Equal(t, "x/site", info.Key)
		assert.False(t, info.IsTerminal)
		assert.True(t, s.Exists(ctx, "x/site"))
	})
}

func TestCertStorageRefusesAValueThatIsAFolder(t *testing.T) {
	t.Parallel()
	overStorages(t, func(t *testing.T, open func() certmagic.Storage) {
		ctx, s := t.Context(), open()
		require.NoError(t, s.Store(ctx, "a/b", []byte("v")))
		assert.Error(t, s.Store(ctx, "a", []byte("w")))
		assert.Error(t, s.Store(ctx, "a/b/c", []byte("w")))
		assert.Error(t, s.Store(ctx, "", []byte("w")))
		keys, err := s.List(ctx, "", true)
		require.NoError(t, err)
		assert.ElementsMatch(t, []string{"a", "a/b"}, keys)
	})
}

func TestCertStorageMixesNoValuesOfConcurrentWriters(t *testing.T) {
	t.Parallel()
	overStorages(t, func(t *testing.T, open func() certmagic.Storage) {
		ctx, storages := t.Context(), []certmagic.Storage{open(), open()}
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				s := storages[i%2]
				for range 10 {
					assert.NoError(t, s.Store(ctx, "a/key", []byte(strings.Repeat(string(rune('a'+i)), 1000+i))))
					got, err := s.Load(ctx, "a/key")
					if assert.NoError(t, err) && assert.NotEmpty(t, got) {
						assert.Equal(t, strings.Repeat(string(got[:1]), 1000+int(got[0]-'a')), string(got))
					}
				}
			})
		}
		all.Wait()
	})
}

// In step with a folder: whatever is done to both, both answer the same. certmagic's own folder is the model, without the
// empty folders that it leaves behind.
func TestCertStoreDoesWhatAFolderDoes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			model := &certmagic.FileStorage{Path: folder}
			s := newCertStore(t, migratedDatabase(t), certStoreOptions{Key: storageKey})
			random := rand.New(rand.NewPCG(seed, 4))
			for step := range 300 {
				key := randomKey(random)
				switch op := random.IntN(8); {
				case op < 3 && strings.HasPrefix(path.Base(key), "file"):
					value := fmt.Appendf(nil, "%d", random.Int64())
					require.NoError(t, model.Store(t.Context(), key, value))
					require.NoError(t, s.Store(t.Context(), key, value))
				case op == 3:
					require.NoError(t, model.Delete(t.Context(), key))
					require.NoError(t, s.Delete(t.Context(), key))
					removeEmptyFolders(t, folder)
				}
				requireSame(t, model, s, key, fmt.Sprintf("step %d, key %q", step, key))
			}
		})
	}
}

// randomKey is that of a file-… or a folder-… up to three levels deep.
func randomKey(random *rand.Rand) string {
	var parts []string
	for range random.IntN(3) {
		parts = append(parts, fmt.Sprint("folder-", random.IntN(3)))
	}
	kind := []string{"file-", "file.", "folder-"}[random.IntN(3)]
	return strings.Join(append(parts, fmt.Sprint(kind, random.IntN(3))), "/")
}

func removeEmptyFolders(t *testing.T, root string) {
	var folders []string
	require.NoError(t, filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && name != root {
			folders = append(folders, name)
		}
		return err
	}))
	for _, name := range slices.Backward(folders) { // the inner ones first
		_ = os.Remove(name) // fails on those that are not empty
	}
}

// requireSame asks both storages everything about a key.
func requireSame(t *testing.T, model, s certmagic.Storage, key, where string) {
	t.Helper()
	ctx := t.Context()
	isFolder := strings.HasPrefix(path.Base(key), "folder")
	if !isFolder {
		want, wantErr := model.Load(ctx, key)
		got, err := s.Load(ctx, key)
		require.Equal(t, wantErr == nil, err == nil, where)
		require.Equal(t, errors.Is(wantErr, fs.ErrNotExist), errors.Is(err, fs.ErrNotExist), where)
		require.Equal(t, string(want), string(got), where)
	}
	require.Equal(t, model.Exists(ctx, key), s.Exists(ctx, key), where)
	want, wantErr := model.Stat(ctx, key)
	got, err := s.Stat(ctx, key)
	require.Equal(t, errors.Is(wantErr, fs.ErrNotExist), errors.Is(err, fs.ErrNotExist), where)
	require.Equal(t, want.Key, got.Key, where)
	require.Equal(t, want.IsTerminal, got.IsTerminal, where)
	if want.IsTerminal {
		require.Equal(t, want.Size, got.Size, where)
	}
	for _, folder := range []string{key, path.Dir(key), ""} {
		for _, recursive := range []bool{false, true} {
			want, wantErr := model.List(ctx, strings.TrimPrefix(folder, "."), recursive)
			got, err := s.List(ctx, strings.TrimPrefix(folder, "."), recursive)
			require.Equal(t, errors.Is(wantErr, fs.ErrNotExist), errors.Is(err, fs.ErrNotExist), where)
			require.ElementsMatch(t, want, got, "%s, listing %q, recursive %t", where, folder, recursive)
		}
	}
}

func TestCertStoreCleansKeysAsPathsAre(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), newCertStore(t, migratedDatabase(t), certStoreOptions{})
	require.NoError(t, s.Store(ctx, "/a//b/./../c/", []byte("v")))
	require.NoError(t, s.Store(ctx, "../../d", []byte("v")))
	keys, err := s.List(ctx, "/", true)
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "a/c", "d"}, keys)
	for _, everything := range []string{"", "/", ".", "a/.."} {
		assert.ErrorIs(t, s.Delete(ctx, everything), fs.ErrInvalid)
	}
	assert.True(t, s.Exists(ctx, ""))
	assert.Error(t, s.Store(ctx, "nul\x00", []byte("v")))
}

func TestCertStorageHonoursItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := newCertStore(t, migratedDatabase(t), certStoreOptions{})
	cancel()
	for doing, err := range everyCall(ctx, s) {
		assert.ErrorIs(t, err, context.Canceled, doing)
	}
}

// everyCall makes every call that can fail, and says how it did.
func everyCall(ctx context.Context, s *certStore) map[string]error {
	_, load := s.Load(ctx, "key")
	_, stat := s.Stat(ctx, "key")
	_, list := s.List(ctx, "key", true)
	_, try := s.TryLock(ctx, "tried")
	return map[string]error{
		"load": load, "stat": stat, "list": list, "store": s.Store(ctx, "key", nil), "delete": s.Delete(ctx, "key"),
		"lock": s.Lock(ctx, "locked"), "try": try,
	}
}
