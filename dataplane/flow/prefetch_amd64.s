#include "textflag.h"

// func prefetchHeaders(sets *set, mask uint64, hashes []uint64)
TEXT ·prefetchHeaders(SB), NOSPLIT, $0-40
	MOVQ  sets+0(FP), DI
	MOVQ  mask+8(FP), DX
	MOVQ  hashes_base+16(FP), SI
	MOVQ  hashes_len+24(FP), CX
	TESTQ CX, CX
	JZ    done

next:
	MOVQ       (SI), AX
	ANDQ       DX, AX
	LEAQ       (AX)(AX*8), AX
	SHLQ       $6, AX
	PREFETCHT0 (DI)(AX*1)
	ADDQ       $8, SI
	DECQ       CX
	JNZ        next

done:
	RET

// func prefetchEntries(sets *set, places []uint32)
TEXT ·prefetchEntries(SB), NOSPLIT, $0-32
	MOVQ  sets+0(FP), DI
	MOVQ  places_base+8(FP), SI
	MOVQ  places_len+16(FP), CX
	TESTQ CX, CX
	JZ    done

next:
	MOVL       (SI), AX
	MOVQ       AX, BX
	SHRQ       $3, BX
	ADDQ       BX, AX               // lines before the place, but for the header of its set
	SHLQ       $6, AX
	PREFETCHT0 64(DI)(AX*1)
	ADDQ       $4, SI
	DECQ       CX
	JNZ        next

done:
	RET
