package slot

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// forget has the kernel read a file or a block device from the disk again. What is to
// be read has been synced before.
func forget(f *os.File) error {
	fd := int(f.Fd())
	if err := unix.IoctlSetInt(fd, unix.BLKFLSBUF, 0); err == nil {
		return nil
	} else if !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
}
