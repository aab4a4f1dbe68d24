//go:build amd64 || arm64

package flow

// prefetchHeaders asks for the headers of the sets of these hashes, and waits for
// nothing.
//
//go:noescape
func prefetchHeaders(sets *set, mask uint64, hashes []uint64)

// prefetchEntries does the same for the entries in these places. One that does not
// exist is no error.
//
//go:noescape
func prefetchEntries(sets *set, places []uint32)
